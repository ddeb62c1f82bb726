# The server image and CuPy with CUDA 13; of the host only the driver is needed (NVIDIA Container Toolkit).
#
#   docker build -f deploy/server.Dockerfile -t telegrad-server . && docker build -f deploy/gpu.Dockerfile -t telegrad-server-gpu .
#
# Made on the server image, not on nvidia/cuda: Ray wants the same Python to the patch on all of a cluster's hosts, and
# CuPy's packages of the CUDA libraries make a CUDA base needless.
ARG BASE=telegrad-server:latest
# hadolint ignore=DL3006
FROM ${BASE}
USER 0:0
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca_bundle,target=/run/secrets/ca_bundle \
    /usr/local/bin/python -m pip --python /opt/telegrad/bin/python install 'cupy-cuda13x[ctk]>=14.2,<15' 'nvidia-nccl-cu13>=2.27,<3'
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
