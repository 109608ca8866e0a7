"""Values as JSON that another process turns back into equal ones: what tools return, contexts, final outputs."""
