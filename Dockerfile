# One image for all services; its argument says which: docker run IMAGE svc_gateway
ARG PYTHON=python:3.11-slim

FROM ${PYTHON} AS build
WORKDIR /source
COPY pyproject.toml requirements.lock ./
COPY scripts/image.sh scripts/locked.py scripts/
RUN scripts/image.sh requirements /opt/whimbrel
COPY . .
RUN scripts/image.sh project /opt/whimbrel

FROM ${PYTHON}
COPY --from=build /opt/whimbrel /opt/whimbrel
# The root is read-only where the chart runs it.
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
ENTRYPOINT ["/opt/whimbrel/bin/python", "-m"]
