# syntax=docker/dockerfile:1
# labelmint-serve in a container, for CPUs or for CUDA:
#
#   docker build --target cpu -t labelmint:cpu .
#   docker build --target gpu -t labelmint:gpu .
#   docker run --rm --read-only --cap-drop ALL -p 50051:50051 -p 9464:9464 labelmint:cpu
#
# Settings are variables (LABELMINT_SERVE_MAX_STREAMS=16) or flags behind the image's name; service/README.md lists them.
# Bundles of your own: -v "$PWD/bundles:/bundles:ro" -e LABELMINT_SERVE_BUNDLE=/bundles/cars

# Pin both by digest for production: --build-arg PYTHON_IMAGE=python@sha256:...
ARG PYTHON_IMAGE=python:3.13-slim-trixie
ARG CUDA_IMAGE=nvidia/cuda:13.0.1-cudnn-runtime-ubuntu24.04

# --- one wheel for both -----------------------------------------------------------------------------------------------

FROM ${PYTHON_IMAGE} AS wheel
WORKDIR /src
RUN python -m pip install --no-cache-dir --disable-pip-version-check "hatchling>=1.27"
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY protos protos
COPY export export
COPY service service
COPY clients clients
RUN python -m pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

# --- environments -----------------------------------------------------------------------------------------------------

FROM ${PYTHON_IMAGE} AS cpu-environment
COPY requirements/tested.txt /requirements/tested.txt
COPY --from=wheel /wheels /wheels
RUN python -m venv /opt/labelmint \
    && /opt/labelmint/bin/pip install --no-cache-dir --disable-pip-version-check \
        --constraint /requirements/tested.txt --find-links /wheels "labelmint[service,cli,cpu]" \
    && /opt/labelmint/bin/pip uninstall --yes pip

FROM ${CUDA_IMAGE} AS gpu-environment
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
COPY --from=wheel /wheels /wheels
# The tested versions name onnxruntime, whose files those of onnxruntime-gpu would overwrite: so no constraints here.
RUN python3 -m venv /opt/labelmint \
    && /opt/labelmint/bin/pip install --no-cache-dir --disable-pip-version-check \
        --find-links /wheels "labelmint[service,cli,gpu]" \
    && /opt/labelmint/bin/pip uninstall --yes pip

# --- images -----------------------------------------------------------------------------------------------------------

FROM ${CUDA_IMAGE} AS gpu
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin labelmint
COPY --from=gpu-environment /opt/labelmint /opt/labelmint
ENV PATH=/opt/labelmint/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    LABELMINT_SERVE_PROVIDER=cuda \
    LABELMINT_SERVE_HOST=0.0.0.0 \
    LABELMINT_SERVE_METRICS_HOST=0.0.0.0 \
    LABELMINT_SERVE_LOG_FORMAT=json
LABEL org.opencontainers.image.title="labelmint" \
      org.opencontainers.image.description="Labelled samples of a GAN over gRPC, on CUDA" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 10001:10001
EXPOSE 50051 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 CMD ["labelmint", "health"]
ENTRYPOINT ["labelmint-serve"]

# The last target is what `docker build .` makes.
FROM ${PYTHON_IMAGE} AS cpu
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin labelmint
COPY --from=cpu-environment /opt/labelmint /opt/labelmint
ENV PATH=/opt/labelmint/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    LABELMINT_SERVE_HOST=0.0.0.0 \
    LABELMINT_SERVE_METRICS_HOST=0.0.0.0 \
    LABELMINT_SERVE_LOG_FORMAT=json
LABEL org.opencontainers.image.title="labelmint" \
      org.opencontainers.image.description="Labelled samples of a GAN over gRPC" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 10001:10001
EXPOSE 50051 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["labelmint", "health"]
ENTRYPOINT ["labelmint-serve"]
