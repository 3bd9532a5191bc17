"""Programs that print figures. They are no tests: nothing here passes or fails by how fast the machine is."""
