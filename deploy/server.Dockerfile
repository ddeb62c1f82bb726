# telegrad-server on CPUs: all-in-one, gateway or worker, by its command.
#
#   docker build -f deploy/server.Dockerfile -t telegrad-server .
#
# The two secrets are optional: a pip configuration and a bundle of certificates, where packages come by a mirror of
# one's own (--secret id=pip_conf,src=pip.conf --secret id=ca_bundle,src=bundle.pem). They leave nothing in the image.
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
RUN python -m venv --without-pip /opt/telegrad
# What telegrad needs changes less often than telegrad: a layer of its own, made from pyproject.toml alone.
# Of Ray only the core is used: Java and the libraries on top of it stay out.
COPY pyproject.toml deploy/requirements.py ./
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca_bundle,target=/run/secrets/ca_bundle \
    python requirements.py server ray >requirements.txt && \
    pip --python /opt/telegrad/bin/python install --requirement requirements.txt && \
    rm -rf /opt/telegrad/lib/python3.11/site-packages/ray/jars /opt/telegrad/lib/python3.11/site-packages/ray/rllib
COPY README.md LICENSE CHANGELOG.md ./
COPY proto proto
COPY client client
COPY server server
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca_bundle,target=/run/secrets/ca_bundle \
    pip wheel --no-deps --wheel-dir /wheels . && \
    pip --python /opt/telegrad/bin/python install --no-index --no-deps /wheels/*.whl && \
    pip --python /opt/telegrad/bin/python check

FROM python:3.11-slim-bookworm
# Kernels in C are made where the server runs, for the processor that it finds: a compiler, with the headers of C's library.
# hadolint ignore=DL3008
RUN apt-get update && \
    apt-get install --yes --no-install-recommends gcc libc6-dev && \
    rm -rf /var/lib/apt/lists/*
# The folders of volumes belong to the user already in the image: Docker makes a new volume like what it covers.
RUN useradd --uid 10001 --user-group --create-home --shell /usr/sbin/nologin telegrad && \
    install -d -o telegrad -g telegrad -m 0700 /etc/telegrad /var/lib/telegrad \
    /var/lib/telegrad/data /var/lib/telegrad/cache /var/lib/telegrad/kernels
COPY --from=build /opt/telegrad /opt/telegrad
ENV PATH=/opt/telegrad/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    TELEGRAD_SERVER_KERNELS_DIR=/var/lib/telegrad/kernels/c \
    RAY_USAGE_STATS_ENABLED=0
USER 10001:10001
WORKDIR /var/lib/telegrad
EXPOSE 50051 50080 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 CMD ["telegrad-server", "health"]
ENTRYPOINT ["telegrad-server"]
