"""The command line: a module for each verb, put together in `app`. Options in, words out."""
