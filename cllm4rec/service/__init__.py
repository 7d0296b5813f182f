"""The service: lists of a run over HTTP."""
