# smolvlm for CPUs: the API on port 8000, the chat page on 7860. docs/deploy.md tells how to run it;
# `deploy/try_dockerfile.py` runs these steps where no Docker engine is.

# The base of both stages. A tag moves; pin it by its content where the image is made for others:
#   docker buildx imagetools inspect python:3.11-slim-bookworm --format '{{.Manifest.Digest}}'
#   docker build --build-arg PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:... .
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
FROM ${PYTHON_IMAGE} AS build
# An index of your own: docker build --build-arg PIP_INDEX_URL=... ; nothing of it reaches the image.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
RUN apt-get update && apt-get install --yes --no-install-recommends g++
WORKDIR /src
COPY pyproject.toml README.md LICENSE deploy/requirements.lock deploy/build.lock ./
COPY native native
COPY src src
# The engine holds code for every instruction set from plain C++ up and takes the best of the machine it runs on.
# Nothing is installed whose content is not named in a lock file: what builds the wheel lives in an environment of its own.
RUN python -m venv /opt/build && \
    /opt/build/bin/pip install --no-cache-dir --require-hashes -r build.lock && \
    PATH=/opt/build/bin:$PATH /opt/build/bin/pip wheel --no-cache-dir --no-build-isolation --no-deps --wheel-dir /wheels .
# The environment has no pip: nothing is installed into a running container.
RUN python -m venv --without-pip /opt/smolvlm && \
    pip --python /opt/smolvlm/bin/python install --no-cache-dir --require-hashes -r requirements.lock && \
    pip --python /opt/smolvlm/bin/python install --no-index --find-links /wheels --no-deps "smolvlm[serve,ui,heic]" && \
    pip --python /opt/smolvlm/bin/python check && \
    find /opt/smolvlm -type d -path "*/pandas/tests" -prune -exec rm -r {} + && \
    find /opt/smolvlm -type d -path "*/numpy/*" -name tests -prune -exec rm -r {} +
# A package without its engine installs all the same and would run on torch, which is not here: end the build.
RUN /opt/smolvlm/bin/python -c "from smolvlm.engines import _native; print(_native.instruction_sets())"

FROM ${PYTHON_IMAGE}
# A fixed number, so that folders and secrets can be given to it.
RUN groupadd --gid 10001 smolvlm && \
    useradd --uid 10001 --gid 10001 --no-create-home --home-dir /cache --shell /usr/sbin/nologin smolvlm && \
    install --directory --owner=10001 --group=10001 /models /cache
COPY --from=build /opt/smolvlm /opt/smolvlm
# Models by folder in /models; what is downloaded goes to /cache. TMPDIR is where uploads lie unless a folder is set for them.
ENV PATH=/opt/smolvlm/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HOME=/cache XDG_CACHE_HOME=/cache HF_HOME=/cache/huggingface TMPDIR=/tmp
USER 10001:10001
WORKDIR /models
VOLUME ["/models", "/cache"]
EXPOSE 8000 7860
# /health answers once the model is loaded; the page has no such address, so compose.yaml gives it a check of its own.
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8000, timeout=4); c.request('GET', '/health'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["smolvlm"]
CMD ["serve", "--model", "nano", "--host", "0.0.0.0", "--port", "8000"]
