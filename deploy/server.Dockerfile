FROM python:3.11-slim-bookworm
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY client client
COPY server server
RUN pip install --no-cache-dir '.[server]' && useradd --uid 10001 telegrad
USER telegrad
EXPOSE 50051
ENTRYPOINT ["telegrad-server"]
