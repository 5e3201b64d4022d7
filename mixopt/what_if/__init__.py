"""What any mixture would give: the law as plain numbers, and its views in a page and a notebook."""
