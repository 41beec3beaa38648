"""From what `--model` says to an opened model: names, downloads, licences."""
