"""Which variables of the environment a document may name as a secret, and which belong to the process itself."""

import re

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
# What the process signs in with, is told where to go by, or loads code through; sections of settings among them.
_FAMILIES = (
    "HEADRACE", "AWS_", "AZURE_", "ARM_", "MSI_", "IDENTITY_", "GOOGLE_", "GCP_", "GCLOUD_", "CLOUDSDK_", "ALICLOUD_",
    "OCI_",
    "PG", "DB_", "SNOWFLAKE_", "REDIS_", "KAFKA_", "OTEL_", "DATABRICKS_", "VAULT_", "KUBERNETES_", "KUBE", "ECS_",
    "LD_", "DYLD_", "GLIBC_", "MALLOC_", "PYTHON", "PIP_", "UV_", "VIRTUAL_ENV", "CONDA_", "SSL", "OPENSSL_", "KRB5",
    "GSS_",
    "SSH_", "GPG_", "GIT_", "DOCKER_", "SYSTEMD_", "XDG_", "DBUS_", "LC_", "BASH_", "SUDO_",
)  # fmt: skip
_OTHERS = frozenset(
    {
        "PATH", "HOME", "USER", "LOGNAME", "SHELL", "PWD", "OLDPWD", "MAIL", "ENV", "IFS", "LANG", "LANGUAGE", "TERM",
        "TZ",
        "TMPDIR", "TEMP", "TMP", "HOSTNAME", "EDITOR", "VISUAL", "PAGER", "NETRC", "CREDENTIALS_DIRECTORY",
        "NOTIFY_SOCKET",
        "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "FTP_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
        "BOTO_CONFIG", "INVOCATION_ID", "JWT_SECRET",
    }
)  # fmt: skip


def is_of_the_process(name: str) -> bool:
    """Say whether a name is the process's own, which no document may read, even where a setting would list it."""
    upper = name.upper()
    return upper.startswith(_FAMILIES) or upper in _OTHERS


def check_prefix(prefix: str) -> str:
    """Return the prefix of names that documents may use.

    Raises:
        ValueError: it is empty, no name, or that of names which documents may never use.
    """
    if not NAME.fullmatch(prefix):
        raise ValueError("must be letters, digits and underscores, such as SECRET_, and is never empty")
    if is_of_the_process(prefix) or is_of_the_process(f"{prefix}_"):
        raise ValueError("is the beginning of names that belong to Headrace or its process; SECRET_ is a good one")
    return prefix


def check_listed(name: str) -> str:
    """Return a name that is allowed by itself.

    Raises:
        ValueError: it is no name, or one which documents may never use.
    """
    if not NAME.fullmatch(name):
        raise ValueError("must be names of variables, separated by commas")
    if is_of_the_process(name):
        raise ValueError(
            f"holds {name}, which belongs to Headrace or its process; copy the value into another variable"
        )
    return name
