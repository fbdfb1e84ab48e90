"""An engine on another machine, reached over the person's own ssh."""
