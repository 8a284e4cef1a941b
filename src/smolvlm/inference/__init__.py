"""The one way from a conversation to tokens, which every door drives: the verbs, sessions, the server, batch, the page and `compat`."""
