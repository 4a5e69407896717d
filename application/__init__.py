"""What we do: use cases that read as stories. Knows only `domain` (and structlog); a stranger to `infrastructure`."""
