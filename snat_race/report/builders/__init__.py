"""From a result to a document, one builder for each kind of result."""
