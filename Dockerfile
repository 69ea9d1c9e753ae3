# syntax=docker/dockerfile:1
# labelmint-serve in a container, for CPUs or for CUDA:
#
#   docker build --target cpu -t labelmint:cpu .
#   docker build --target gpu -t labelmint:gpu .
#   docker run --rm --init --read-only --cap-drop ALL -p 127.0.0.1:50051:50051 -p 127.0.0.1:9464:9464 labelmint:cpu
#
# Settings are variables (LABELMINT_SERVE_MAX_STREAMS=16) or flags behind the image's name; service/README.md lists them.
# Bundles of your own: -v "$PWD/bundles:/bundles:ro" -e LABELMINT_SERVE_BUNDLE=/bundles/cars
#
# With TLS the probe needs variables of its own: LABELMINT_TLS_ROOT_CA, where the certificate does not name 127.0.0.1
# LABELMINT_TLS_SERVER_NAME, for client certificates LABELMINT_TLS_CERTIFICATE and LABELMINT_TLS_KEY, and for another port
# LABELMINT_ADDRESS.
#
# The image lists the Python packages that it holds in /opt/labelmint/sbom.cdx.json (CycloneDX). For a list of everything
# in it, and a record of the build, both attached to the image: docker buildx build --sbom=true --provenance=mode=max ...
#
# onnxruntime 1.32 sends telemetry to its makers from Linux too. The images switch that off.

# A digest goes before the tag: for newer bases give both anew, --build-arg PYTHON_IMAGE=docker.io/library/python:...@sha256:...
ARG PYTHON_IMAGE=docker.io/library/python:3.13-slim-trixie@sha256:9d2e5553305c7c7b0097999bb17187c69b921ccd6bc9d40e4bb5ebe652c00285
ARG CUDA_IMAGE=docker.io/nvidia/cuda:13.0.3-cudnn-runtime-ubuntu24.04@sha256:14f6d08d1cd4a96effbfe3101d0b56326f552c199d05e4979ee0bd616df5811b

# What the labels say of this build: --build-arg REVISION=$(git rev-parse HEAD) --build-arg CREATED=$(date --utc +%FT%TZ)
ARG VERSION=0.1.0
ARG REVISION=""
ARG CREATED=""

# --- one wheel for both -----------------------------------------------------------------------------------------------

FROM ${PYTHON_IMAGE} AS wheel
WORKDIR /src
COPY requirements/tested.txt /requirements/tested.txt
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --no-cache-dir --disable-pip-version-check \
        --constraint /requirements/tested.txt "hatchling>=1.27"
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY protos protos
COPY export export
COPY service service
COPY clients clients
RUN /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --disable-pip-version-check --wheel-dir /wheels .

# --- environments -----------------------------------------------------------------------------------------------------

FROM ${PYTHON_IMAGE} AS cpu-environment
COPY requirements/tested.txt /requirements/tested.txt
COPY --from=wheel /wheels /wheels
RUN python -m venv /opt/labelmint \
    && /opt/labelmint/bin/pip install --no-cache-dir --disable-pip-version-check \
        --constraint /requirements/tested.txt --find-links /wheels "labelmint[service,cli,cpu,tracing]" \
    && /opt/labelmint/bin/pip uninstall --yes pip
RUN python -m venv /opt/sbom \
    && /opt/sbom/bin/pip install --no-cache-dir --disable-pip-version-check "cyclonedx-bom>=7.1,<8" \
    && /opt/sbom/bin/cyclonedx-py environment --output-reproducible --output-file /opt/labelmint/sbom.cdx.json \
        /opt/labelmint/bin/python

FROM ${CUDA_IMAGE} AS gpu-environment
# The archive of a released Ubuntu keeps only the newest build of a package: a pinned one could not be installed again.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
COPY requirements/tested.txt /requirements/tested.txt
COPY --from=wheel /wheels /wheels
# onnxruntime-gpu stands in for onnxruntime and is not among the tested versions.
RUN python3 -m venv /opt/labelmint \
    && /opt/labelmint/bin/pip install --no-cache-dir --disable-pip-version-check \
        --constraint /requirements/tested.txt --find-links /wheels "labelmint[service,cli,gpu,tracing]" \
    && /opt/labelmint/bin/pip uninstall --yes pip
RUN python3 -m venv /opt/sbom \
    && /opt/sbom/bin/pip install --no-cache-dir --disable-pip-version-check "cyclonedx-bom>=7.1,<8" \
    && /opt/sbom/bin/cyclonedx-py environment --output-reproducible --output-file /opt/labelmint/sbom.cdx.json \
        /opt/labelmint/bin/python

# --- images -----------------------------------------------------------------------------------------------------------

FROM ${CUDA_IMAGE} AS gpu
# As above.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin labelmint
COPY --from=gpu-environment /opt/labelmint /opt/labelmint
ENV PATH=/opt/labelmint/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    LABELMINT_SERVE_PROVIDER=cuda \
    LABELMINT_SERVE_HOST=0.0.0.0 \
    LABELMINT_SERVE_METRICS_HOST=0.0.0.0 \
    LABELMINT_SERVE_LOG_FORMAT=json
ARG CUDA_IMAGE VERSION REVISION CREATED
# The licences of the code and of the embedded model.
LABEL org.opencontainers.image.title="labelmint" \
      org.opencontainers.image.description="Labelled samples of a GAN over gRPC, on CUDA" \
      org.opencontainers.image.licenses="Apache-2.0 AND CC-BY-4.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="${CUDA_IMAGE}" \
      labelmint.sbom="/opt/labelmint/sbom.cdx.json"
USER 10001:10001
EXPOSE 50051 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=20s --start-period=120s --retries=3 CMD ["labelmint", "health"]
ENTRYPOINT ["labelmint-serve"]

# The last target is what `docker build .` makes.
FROM ${PYTHON_IMAGE} AS cpu
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin labelmint
COPY --from=cpu-environment /opt/labelmint /opt/labelmint
ENV PATH=/opt/labelmint/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    LABELMINT_SERVE_HOST=0.0.0.0 \
    LABELMINT_SERVE_METRICS_HOST=0.0.0.0 \
    LABELMINT_SERVE_LOG_FORMAT=json
ARG PYTHON_IMAGE VERSION REVISION CREATED
# The licences of the code and of the embedded model.
LABEL org.opencontainers.image.title="labelmint" \
      org.opencontainers.image.description="Labelled samples of a GAN over gRPC" \
      org.opencontainers.image.licenses="Apache-2.0 AND CC-BY-4.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}" \
      labelmint.sbom="/opt/labelmint/sbom.cdx.json"
USER 10001:10001
EXPOSE 50051 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=20s --start-period=60s --retries=3 CMD ["labelmint", "health"]
ENTRYPOINT ["labelmint-serve"]
