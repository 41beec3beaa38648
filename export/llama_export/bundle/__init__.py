"""Bundles on disk: the manifest, the artifact's signature, and how a folder is published."""
