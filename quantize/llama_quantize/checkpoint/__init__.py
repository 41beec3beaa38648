"""The quantised checkpoint on disk: written tensor by tensor, opened mapped."""
