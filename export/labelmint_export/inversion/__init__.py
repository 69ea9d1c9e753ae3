"""Real pictures to latents: which w of each layer paints a picture that a generator has not painted."""
