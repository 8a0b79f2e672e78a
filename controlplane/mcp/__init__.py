"""The door of models: tools of the Model Context Protocol, none of which ever gives a secret away."""
