"""Trees of page tables of any architecture: their form as data (`form`), and a builder (`tables`, `edits`, `plan`)."""
