// A pad to write digits on, and the picture [28, 28] that a network reads of them: what labs/digit_page/page.html and
// labs/app/pad.js begin with. A stroke is a list of points [x, y]; the pad goes from [0, 0] to [1, 1].

const PEN = 1 / 14; // how wide the pad shows a stroke

// How much ink each pixel of a picture [size, size] has, 0 to 1, when a pen of `width` pixels follows the strokes. A
// pixel is a square, its middle the point (column, row).
function inkOf(strokes, size, width, toPixels) {
  const ink = new Float32Array(size * size);
  for (const stroke of strokes) {
    const points = stroke.map(toPixels);
    points.forEach(([x, y], i) => {
      const [fromX, fromY] = points[Math.max(i - 1, 0)];
      const [dx, dy] = [x - fromX, y - fromY];
      const [left, right] = [Math.min(x, fromX) - width, Math.max(x, fromX) + width];
      const [top, bottom] = [Math.min(y, fromY) - width, Math.max(y, fromY) + width];
      for (let row = Math.max(0, Math.ceil(top)); row <= Math.min(size - 1, bottom); row++)
        for (let column = Math.max(0, Math.ceil(left)); column <= Math.min(size - 1, right); column++) {
          const along = ((column - fromX) * dx + (row - fromY) * dy) / (dx * dx + dy * dy || 1);
          const part = Math.min(1, Math.max(0, along)); // of the way, where the line is nearest to the pixel
          const distance = Math.hypot(column - fromX - part * dx, row - fromY - part * dy);
          const covered = Math.min(1, Math.max(0, width / 2 + 0.5 - distance)); // the share of the pixel, nearly
          ink[row * size + column] = Math.max(ink[row * size + column], covered);
        }
    });
  }
  return ink;
}

// The strokes as MNIST has its digits: [28, 28] in [0, 1], the longer side of the ink 20 pixels, its centre of mass in
// pixel (14, 14). They are drawn anew, with a pen of an eighth of those 20, however large they are on the pad.
function digitOf(strokes) {
  const points = strokes.flat();
  if (!points.length) return null;
  const ends = [0, 1].map((axis) => {
    const places = points.map((point) => point[axis]);
    return [Math.min(...places), Math.max(...places)];
  });
  const width = 20 / 8;
  // What is smaller than the pen shows it is a dot, and stays one.
  const scale = (20 - width) / Math.max(PEN / 2, ...ends.map(([low, high]) => high - low));
  const around = (middle, target) => (point) => [0, 1].map((axis) => (point[axis] - middle[axis]) * scale + target);
  let middle = ends.map(([low, high]) => (low + high) / 2);
  const ink = inkOf(strokes, 33, width, around(middle, 16)); // large enough that nothing is cut
  let [mass, x, y] = [0, 0, 0];
  ink.forEach((value, i) => {
    mass += value;
    x += value * ((i % 33) - 16);
    y += value * (Math.floor(i / 33) - 16);
  });
  middle = [middle[0] + x / mass / scale, middle[1] + y / mass / scale];
  return inkOf(strokes, 28, width, around(middle, 14));
}

// Makes a canvas a pad. `changed` is called at most once a frame with the picture to be read, null for none: that of
// the strokes, or an example [28, 28], which `show` puts on the pad until something is drawn.
function padOn(canvas, changed) {
  const context = canvas.getContext("2d");
  let strokes = [];
  let example = null;
  let drawing = false; // whether the pen is down
  let asked = false; // for the next frame

  function redraw() {
    asked = false;
    const side = canvas.width;
    context.clearRect(0, 0, side, side);
    context.fillStyle = context.strokeStyle = "white";
    Object.assign(context, { lineWidth: PEN * side, lineCap: "round", lineJoin: "round" });
    for (const stroke of strokes) {
      context.beginPath();
      if (stroke.length === 1) context.arc(stroke[0][0] * side, stroke[0][1] * side, (PEN * side) / 2, 0, 7);
      else stroke.forEach(([x, y]) => context.lineTo(x * side, y * side));
      stroke.length === 1 ? context.fill() : context.stroke();
    }
    example?.forEach((value, i) => {
      const pixel = side / 28;
      context.fillStyle = `rgb(255 255 255 / ${value})`;
      context.fillRect((i % 28) * pixel, Math.floor(i / 28) * pixel, pixel, pixel);
    });
    changed(example ?? digitOf(strokes));
  }

  function update() {
    if (!asked) requestAnimationFrame(redraw);
    asked = true;
  }

  function add(event) {
    const { left, top, width, height } = canvas.getBoundingClientRect();
    const inside = (value) => Math.min(1, Math.max(0, value)); // strokes may leave the pad, and come back
    // A fast pen moves several times between two frames.
    const events = event.getCoalescedEvents?.() ?? [];
    for (const { clientX, clientY } of events.length ? events : [event])
      strokes.at(-1).push([inside((clientX - left) / width), inside((clientY - top) / height)]);
    update();
  }

  function clear() {
    [strokes, example, drawing] = [[], null, false];
    update();
  }

  function undo() {
    if (example) return clear();
    strokes.pop();
    drawing = false;
    update();
  }

  function show(picture) {
    clear();
    example = picture;
  }

  canvas.addEventListener("mousedown", (event) => event.preventDefault()); // or it drags what is selected
  canvas.addEventListener("pointerdown", (event) => {
    if (!event.isPrimary || event.button !== 0) return; // one finger, or the mouse's main button
    canvas.setPointerCapture(event.pointerId);
    example = null;
    strokes.push([]);
    drawing = true;
    add(event);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (drawing && event.isPrimary) add(event);
  });
  canvas.addEventListener("lostpointercapture", () => (drawing = false)); // lifted, or taken away by the system
  document.addEventListener("keydown", (event) => {
    if (event.key !== "z" || !(event.ctrlKey || event.metaKey) || !canvas.offsetParent) return; // another tab's
    if (event.target.matches("input, textarea")) return;
    event.preventDefault();
    undo();
  });
  return { clear, undo, show };
}

// A button for each of the digits, pictures [28, 28] of bytes one after another in base64, that shows it on the pad
function addExamples(place, base64, show) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  for (let digit = 0; digit < bytes.length / 784; digit++) {
    const picture = Float32Array.from(bytes.subarray(784 * digit, 784 * (digit + 1)), (byte) => byte / 255);
    const canvas = '<canvas width="28" height="28"></canvas>';
    place.insertAdjacentHTML("beforeend", `<button type="button" aria-label="${digit}">${canvas}</button>`);
    const context = place.lastChild.firstChild.getContext("2d");
    const image = context.createImageData(28, 28);
    picture.forEach((value, i) => image.data.set([255 * value, 255 * value, 255 * value, 255], 4 * i));
    context.putImageData(image, 0, 0);
    place.lastChild.addEventListener("click", () => show(picture));
  }
}
