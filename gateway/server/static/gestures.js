// Hands on a chart beyond the mouse's drag: the wheel sideways (or with Shift) pans, with Ctrl it zooms at the pointer; one finger pans,
// two fingers zoom, a finger that moves up or down scrolls the page as ever. Pure of charts: it speaks of shares of the width.

const START_PX = 8, FINEST_PX = 24;

/**
 * Listens on `node`. `pan(share)`: to later by that share of the width (negative: to earlier); `zoom(factor, at)`: the window becomes
 * `factor` times as long around the share `at` of the width. A tap is left to the browser, which makes a mouse of it.
 */
export function gestures(node, { pan, zoom }) {
  node.addEventListener("wheel", (event) => {
    const { width, left } = node.getBoundingClientRect();
    const pixels = event.deltaMode === 1 ? 16 : event.deltaMode === 2 ? width : 1;
    const across = (event.shiftKey && !event.deltaX ? event.deltaY : event.deltaX) * pixels, along = event.deltaY * pixels;
    if (event.ctrlKey) zoom(Math.exp(Math.max(-0.5, Math.min(0.5, along / 200))), (event.clientX - left) / width);
    else if (event.shiftKey || Math.abs(across) > Math.abs(along)) pan(across / width);
    else return;
    event.preventDefault();
  }, { passive: false });

  const fingers = new Map();
  let moved = false;

  node.addEventListener("pointerdown", (event) => {
    if (event.pointerType !== "touch") return;
    if (!fingers.size) moved = false;
    fingers.set(event.pointerId, event.clientX);
    if (fingers.size > 1) moved = true;
  });

  node.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (before === undefined) return;
    const x = event.clientX, { width, left } = node.getBoundingClientRect();
    if (fingers.size === 1) {
      if (!moved && Math.abs(x - before) < START_PX) return;
      moved = true;
      pan((before - x) / width);
    } else {
      const other = [...fingers].find(([id]) => id !== event.pointerId)[1];
      const was = Math.max(FINEST_PX, Math.abs(before - other)), is = Math.max(FINEST_PX, Math.abs(x - other));
      zoom(was / is, (other - left) / width);
    }
    fingers.set(event.pointerId, x);
  });

  const lift = (event) => fingers.delete(event.pointerId);
  node.addEventListener("pointerup", lift);
  node.addEventListener("pointercancel", lift);
}
