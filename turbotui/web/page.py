"""Owns the one page: textual-serve's terminal and font, from this server, and nothing from elsewhere."""

from __future__ import annotations

import html

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="static/css/xterm.css">
<style>
@font-face {{ font-family: "Roboto Mono"; src: url("static/fonts/RobotoMono-VariableFont_wght.ttf"); }}
@font-face {{
  font-family: "Roboto Mono"; font-style: italic;
  src: url("static/fonts/RobotoMono-Italic-VariableFont_wght.ttf");
}}
html, body {{ margin: 0; height: 100%; background: #101418; overflow: hidden; }}
#terminal {{ width: 100vw; height: 100vh; }}
#ended {{
  display: none; position: absolute; inset: 0; z-index: 10; align-items: center; justify-content: center;
  flex-direction: column; background: #101418e0; color: #d8dee4; font: 16px "Roboto Mono", monospace;
}}
body.-closed #ended {{ display: flex; }}
#ended a {{ color: #7cb7ff; margin-top: 1em; }}
</style>
</head>
<body>
<div id="terminal" class="textual-terminal" data-session-websocket-url="{socket}"
  data-font-size="{font_size}"></div>
<div id="ended"><div>This console has ended; the engine goes on.</div><a href=".">Open it again</a></div>
<script>
// The terminal asks for a download at the server's root, and everything lies below this page.
const open_window = window.open;
const root = /^[a-z]+:[/][/][^/]+[/](?=download[/])/;
window.open = (address, ...rest) => open_window(address.replace(root, location.pathname), ...rest);
// The terminal measures its font once, so that must be there before the terminal is.
Promise.all([document.fonts.load('16px "Roboto Mono"'), document.fonts.ready]).finally(() => {{
  const script = document.createElement("script");
  script.src = "static/js/textual.js";
  script.onload = () => window.onload && document.readyState === "complete" && window.onload();
  document.head.appendChild(script);
  const waiting = setInterval(() => {{
    const keys = document.querySelector(".xterm-helper-textarea");
    if (keys) {{ clearInterval(waiting); keys.focus(); }}
  }}, 50);
}});
</script>
</body>
</html>
"""


def page(*, title: str, host: str, path: str, font_size: int) -> str:
    """The page at `path`, for whoever asked at `host`: behind a tunnel the port is another one."""
    socket = html.escape(f"ws://{host}/{path}/ws")
    return _PAGE.format(title=html.escape(title), socket=socket, font_size=font_size)
