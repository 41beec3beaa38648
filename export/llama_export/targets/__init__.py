"""The targets, a package each: lower a traced model, and open the artifact as a session.

Targets never import each other.
"""
