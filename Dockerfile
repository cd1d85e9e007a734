# One image for all services; the command says which one a container runs (docker-compose.yml).
# Plain Dockerfile syntax: the container tests use the classic builder, which has no BuildKit features.

FROM python:3.11.15-slim-trixie AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build

# What the engine's kernel is compiled with. It stays in this stage.
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends g++ >/dev/null \
 && rm -rf /var/lib/apt/lists/*

# All locked packages, checked against their hashes. Wheels only: building one would download unlocked build tools.
COPY requirements.lock ./
RUN pip download --quiet --require-hashes --no-deps --only-binary :all: --dest /wheels --requirement requirements.lock

# The project and its dependencies, from those files only. The packages of the extra `dev` are not installed.
COPY pyproject.toml README.md LICENSE celeryconfig.py hatch_build.py ./
COPY api/ api/
COPY web/ web/
COPY crochet_tasks/ crochet_tasks/
RUN python -m venv --without-pip /opt/crochet \
 && pip --python /opt/crochet/bin/python install --no-index --find-links /wheels .


FROM python:3.11.15-slim-trixie

# No package is installed at run time.
RUN pip uninstall --quiet --yes --root-user-action=ignore setuptools wheel pip \
 && useradd --system --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin crochet \
 && install --directory --owner crochet --mode 0700 /backups

COPY --from=build /opt/crochet /opt/crochet
ENV PATH=/opt/crochet/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

USER 10001:10001
WORKDIR /tmp
STOPSIGNAL SIGTERM
ENTRYPOINT ["crochet"]
CMD ["--help"]
