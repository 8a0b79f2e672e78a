"""The composition root: settings in, a control plane out. Nobody else knows an adapter."""
