"""The providers' protocols, one module each, over one HTTP client."""
