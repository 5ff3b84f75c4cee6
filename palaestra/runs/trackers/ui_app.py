"""MLflow's web application as `palaestra ui` serves it: opened on training runs, without assistant.

MLflow finds it by its entry point "mlflow.app". The page of MLflow opens on its tools for language
models with an assistant in front of them; the assistant's service is not part of this application
(it can run commands for whoever reaches the port), and neither are accounts. What the page asks of
them is answered with nothing, so that it does not report errors.
"""

import json
from pathlib import Path

from flask import Response, request
from mlflow.server import app

__all__ = ["app"]

_NOTHING: dict[str, object] = {
    "/ajax-api/2.0/mlflow/users/current": {},
    "/ajax-api/3.0/mlflow/assistant/config": {"providers": {}, "projects": {}},
    "/ajax-api/3.0/mlflow/assistant/providers": {"providers": []},
}
"""Path -> what the page is told."""

_SETTINGS = {
    "mlflow.workflowType_v1": '"machine_learning"',
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
}
"""Settings that the page keeps in the browser, as they are until the user changes them."""


@app.before_request
def answer() -> Response | None:
    """Answer what MLflow's own application would not, or not well."""
    if request.method == "GET" and request.path in _NOTHING:
        return Response(json.dumps(_NOTHING[request.path]), mimetype="application/json")
    if request.path == "/":
        return Response(_page(), mimetype="text/html")
    return None


_FIRST = """<script>
for (const [key, value] of Object.entries(SETTINGS))
  if (localStorage.getItem(key) === null) localStorage.setItem(key, value);
// Browsers send this notice when a chart changes its size while it is laid out; nothing is wrong.
addEventListener("error", (event) => {
  if (String(event.message).startsWith("ResizeObserver loop")) event.stopImmediatePropagation();
});
</script>"""
"""What the page does first: it chooses the settings that nobody chose yet."""


def _page() -> str:
    page = (Path(str(app.static_folder)) / "index.html").read_text(encoding="utf-8")
    first = _FIRST.replace("SETTINGS", json.dumps(_SETTINGS))
    return page.replace("<head>", f"<head>{first}", 1)
