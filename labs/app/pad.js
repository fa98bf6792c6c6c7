// The pad of the page: white ink on black. Gradio gives it `element`, `props` and `trigger`.
const canvas = element.querySelector("canvas");
const pad = canvas.getContext("2d");
let last = null; // where the pen was, or null while it is lifted

function clear() {
  pad.fillStyle = "black";
  pad.fillRect(0, 0, canvas.width, canvas.height);
}

function send(drawing) {
  props.value = drawing;
  trigger("input");
}
const sendDrawing = () => send(canvas.toDataURL("image/png").split(",")[1]);

function drawTo(event) {
  const box = canvas.getBoundingClientRect();
  const scale = canvas.width / box.width;
  const point = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
  pad.beginPath();
  pad.moveTo(...(last ?? point));
  pad.lineTo(...point);
  pad.stroke();
  last = point;
}

clear();
// In a digit of three fifths of the pad as thick as MNIST's strokes, 2.4 of 20 pixels
Object.assign(pad, { lineWidth: 20, lineCap: "round", strokeStyle: "white" });
canvas.addEventListener("mousedown", (event) => event.preventDefault()); // or it drags what is selected
canvas.addEventListener("pointerdown", (event) => {
  if (!event.isPrimary || event.button !== 0) return; // one finger, or the mouse's main button
  canvas.setPointerCapture(event.pointerId); // strokes may leave the pad and come back
  drawTo(event);
  sendDrawing();
});
canvas.addEventListener("pointermove", (event) => {
  if (!last || !event.isPrimary) return;
  drawTo(event);
  sendDrawing();
});
canvas.addEventListener("lostpointercapture", () => (last = null));
canvas.addEventListener("clear", () => { // sent by the button below
  clear();
  send("");
});
