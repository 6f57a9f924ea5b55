"""Where crystals come from: raw MP JSON, downloads, the embedded EMT set; validation; splits."""
