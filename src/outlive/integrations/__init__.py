"""Outlive inside web frameworks: each module needs the extra of its name, and `import outlive` loads none of them."""
