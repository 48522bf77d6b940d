# One image for every process; docker-compose.yml says which command each one runs.
FROM node:20-bookworm-slim AS pages
WORKDIR /build/frontend
COPY frontend/package.json frontend/package-lock.json frontend/.npmrc ./
RUN npm ci --no-audit --no-fund
COPY frontend/ ./
RUN npm run build

FROM python:3.11-slim-bookworm
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app
# torch by itself and first: it is the largest layer and the one that changes least, and anything
# resolved beside it could pull a newer one.
COPY pyproject.toml README.md ./
RUN pip install "$(sed -n 's/^ *"\(torch==[^"]*\)".*/\1/p' pyproject.toml)"
COPY platform/ platform/
COPY mlworker/ mlworker/
RUN pip install . && rm -rf build
COPY --from=pages /build/frontend/dist/ /app/pages/
ENV DELINEATE_FRONTEND=/app/pages DJANGO_SETTINGS_MODULE=delineate.config.settings
RUN useradd --system --no-create-home --shell /usr/sbin/nologin delineate
USER delineate
# Not /app: the folder platform/ there must not stand beside the standard library's module.
WORKDIR /tmp
CMD ["python", "-m", "uvicorn", "delineate.config.asgi:application", "--host", "0.0.0.0", "--port", "8700", "--workers", "1", "--no-access-log", "--timeout-graceful-shutdown", "5"]
