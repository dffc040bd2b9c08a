"""How the models that ship came to be: a script each, with the time it takes and the scores to expect."""
