"""From a document to text, Markdown, HTML and the rest."""
