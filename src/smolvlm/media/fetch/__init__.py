"""Downloads of http(s) URLs under a policy."""
