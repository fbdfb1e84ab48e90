"""What happened in a stretch of a recording: `facts` finds it, `lines` tells it. Pure, without an engine."""
