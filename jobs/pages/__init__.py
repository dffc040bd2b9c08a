"""What `jobs.docs` writes: one module a kind of page, each a function from the program to the page's content."""
