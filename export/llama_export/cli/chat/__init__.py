"""`llama-export chat`: the verb, its loop, what a user may type, and what it says."""
