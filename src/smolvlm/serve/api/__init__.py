"""HTTP: OpenAI's shapes, who may send what, and the words of refusals."""
