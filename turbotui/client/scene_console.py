"""Opens the console over a scripted engine: `python -m turbotui.client.scene_console SCENE`.

It costs what the console costs and nothing else, so that is measured over it; and a change of a panel can be
looked at without an engine.
"""

from __future__ import annotations

import sys
import time

from turbotui.client.scripted import ScriptedClient


def main() -> int:
    """The console over a made-up busy GPU; an argument `idle`, `first`, `two` or `eight` is another scene."""
    from turbotui import garbage

    garbage.hold()
    from turbotui.app import TurboApp
    from turbotui.client import scene_gpus, scene_leaks, scene_models, scene_plans, scenes

    scene = sys.argv[1] if len(sys.argv) > 1 else "busy"

    def factory() -> ScriptedClient:
        answers = {
            "explain_switch": scenes.switch_plan,
            "last_check": scene_plans.found(time.time()),
            "check": lambda: scene_plans.found(time.time()),
            "leaks": lambda: scene_leaks.leak_report(time.time()),
            "remedy": scene_leaks.remedied,
            "reset_plan": scene_plans.reset_plan,
            "full_cleanup_plan": lambda: scene_plans.full_cleanup_plan(time.time()),
            "scan_models": scene_models.scan(),
            "released_models": scene_models.released(),
            "get_plan": scene_models.plan,
        }
        return ScriptedClient(scene_gpus.script(scene, time.time()), answers=answers)

    app = TurboApp(factory, where="me@gpubox01", symbols="auto")
    app.run()
    print(app.leaving_line)
    return app.return_code or 0


if __name__ == "__main__":
    raise SystemExit(main())
