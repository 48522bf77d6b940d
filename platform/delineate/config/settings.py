"""Django's settings, made from the typed environment."""

from __future__ import annotations

from hashlib import sha256
from urllib.parse import urlsplit

import dj_database_url

from delineate.config import celery
from delineate.config.env import Environment
from delineate.config.security import is_named_by_its_content

ENVIRONMENT = Environment.read()

SECRET_KEY = ENVIRONMENT.secret_key
DEBUG = False
ALLOWED_HOSTS = sorted({urlsplit(origin).hostname or "" for origin in ENVIRONMENT.origins})
CSRF_TRUSTED_ORIGINS = list(ENVIRONMENT.origins)

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.staticfiles",  # only for the API's documentation page below
    "ninja",
    "channels",
    "delineate.audit",
    "delineate.accounts",
    "delineate.projects",
    "delineate.registry",
    "delineate.studies",
    "delineate.annotation",
    "delineate.exports",
    "delineate.learning",
]
MIDDLEWARE = [
    "delineate.config.streaming.StreamInPieces",
    "delineate.config.security.ContentSecurityPolicy",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "delineate.config.tokens.ApiTokens",
]
ROOT_URLCONF = "delineate.config.urls"
ASGI_APPLICATION = "delineate.config.asgi.application"
# Only the API's documentation page is a template; everything else is the frontend.
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]

DATABASES = {
    "default": dj_database_url.parse(
        ENVIRONMENT.database_url, conn_max_age=0 if ENVIRONMENT.database_pool else 600
    )
}
if ENVIRONMENT.database_pool:
    DATABASES["default"]["OPTIONS"] = {
        "pool": {"min_size": 1, "max_size": ENVIRONMENT.database_pool}
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_USER_MODEL = "accounts.User"
AUTH_PASSWORD_VALIDATORS = [
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 10},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

SECURE_COOKIES = all(origin.startswith("https://") for origin in ENVIRONMENT.origins)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_COOKIES
SESSION_COOKIE_HTTPONLY = True
# Browsers send a host's cookies to all of its ports: installations side by side must not take each
# other's session for their own, which would end it.
SESSION_COOKIE_NAME = f"delineate_session_{sha256(SECRET_KEY.encode()).hexdigest()[:8]}"
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"

# Uploads are streamed to disk in pieces; what is not a file stays small.
DATA_UPLOAD_MAX_MEMORY_SIZE = 8 * 1024**2
DATA_UPLOAD_MAX_NUMBER_FILES = 10_000
FILE_UPLOAD_HANDLERS = ["django.core.files.uploadhandler.TemporaryFileUploadHandler"]

CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        # A page must not hang on a Redis that is away.
        "CONFIG": {"hosts": [{"address": ENVIRONMENT.redis_url, "socket_connect_timeout": 1.0}]},
    }
}

STATIC_URL = "/static/"
WHITENOISE_USE_FINDERS = True
WHITENOISE_ROOT = str(ENVIRONMENT.frontend_dist) if ENVIRONMENT.frontend_dist.is_dir() else None
WHITENOISE_IMMUTABLE_FILE_TEST = is_named_by_its_content

# Whoever has these settings can send tasks; imported for that alone.
CELERY = celery.app

USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en-gb"
USE_I18N = False

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {
        "stderr": {"class": "logging.StreamHandler", "formatter": "line"},
        "nowhere": {"class": "logging.NullHandler"},
    },
    "root": {"handlers": ["stderr"], "level": "INFO"},
    # Readers of files: what they say of odd ones, or at work, repeats values, which may be a
    # patient's. Not by a level: importing pydicom sets its own.
    "loggers": {
        name: {"handlers": ["nowhere"], "propagate": False}
        for name in ("pydicom", "PIL", "nibabel")
    },
}
