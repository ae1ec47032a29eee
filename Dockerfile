# The service for docker-compose.yml; on a laptop `make demo` needs none of this.
FROM python:3.13-slim AS build
WORKDIR /build
COPY requirements/uv.txt requirements/run.txt requirements/build.txt requirements/
RUN python -m venv /opt/jauge \
 && pip install --no-cache-dir --require-hashes -r requirements/uv.txt \
 && uv pip install --python /opt/jauge/bin/python --require-hashes -r requirements/run.txt \
 && uv pip install --python /opt/jauge/bin/python --require-hashes -r requirements/build.txt
COPY pyproject.toml README.md ./
COPY metering metering
COPY reports reports
COPY migrations migrations
RUN uv pip install --python /opt/jauge/bin/python --no-deps --no-build-isolation .

FROM python:3.13-slim
RUN useradd --system --no-create-home jauge && install --directory --owner=jauge --mode=0700 /data
COPY --from=build /opt/jauge /opt/jauge
ENV PATH=/opt/jauge/bin:$PATH PYTHONUNBUFFERED=1
USER jauge
EXPOSE 8321
ENTRYPOINT ["jauge"]
CMD ["serve", "--host", "0.0.0.0"]
