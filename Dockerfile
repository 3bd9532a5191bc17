# The server in a small image with neither a shell nor a package manager in it. docs/docker.md tells how to run it.

FROM debian:trixie-slim AS build

# pip is that of the system, so that its Python is the one of the final image: the same version at the same place.
RUN apt-get update && apt-get install --yes --no-install-recommends binutils python3-pip
COPY pyproject.toml README.md LICENSE /source/
COPY tusd_py /source/tusd_py
# Only wheels: what has none would need a compiler.
RUN python3 -m pip install --no-cache-dir --no-compile --root-user-action ignore --only-binary :all: --target /app "/source[checksums]"
# Symbols for debuggers are half of what was installed.
RUN find /app -name "*.so" -exec strip --strip-unneeded {} +
# On a read-only file system nothing can be compiled later, and each start would take three times as long. Each file is
# compared with its source by its hash: those of the standard library come from the other image.
RUN PYTHONPYCACHEPREFIX=/bytecode python3 -m compileall -q --invalidation-mode checked-hash /app /usr/lib/python3.13
RUN install --directory --mode 0700 /data


FROM gcr.io/distroless/python3-debian13:nonroot

COPY --from=build /app /app
COPY --from=build /bytecode /bytecode
COPY --from=build --chown=65532:65532 /data /data
ENV PYTHONPATH=/app \
    PYTHONPYCACHEPREFIX=/bytecode \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    TUSD_PY_HOST=0.0.0.0 \
    TUSD_PY_PORT=8080 \
    TUSD_PY_UPLOAD_DIR=/data
USER 65532:65532
VOLUME ["/data"]
EXPOSE 8080
# It reads the variables as the server does; flags of the server it does not know. Who waits for it to be healthy waits
# for one interval.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["/usr/bin/python3", "-m", "tusd_py", "healthcheck"]
ENTRYPOINT ["/usr/bin/python3", "-m", "tusd_py"]
CMD ["serve"]
