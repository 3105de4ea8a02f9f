"use strict";
document.documentElement.classList.add("scripted");

/* Values under the pointer, or by the arrow keys. Each point is [place across, place up, x as text, y as text]. */
for (const figure of document.querySelectorAll(".chart")) {
  const svg = figure.querySelector("svg[role=img]"), cursor = svg.querySelector(".cursor");
  const output = figure.querySelector("output"), width = svg.viewBox.baseVal.width;
  let lines, places, at;
  const read = () => {
    lines = [...svg.querySelectorAll(".line")].map((path) => [path.dataset.name, JSON.parse(path.dataset.points)]);
    places = [...new Set(lines.flatMap(([, points]) => points.map((point) => point[0])))].sort((a, b) => a - b);
    at = places.length;
  };
  const show = (index) => {
    at = Math.max(0, Math.min(places.length - 1, index));
    const x = places[at];
    cursor.setAttribute("d", `M${x},${cursor.dataset.top}V${cursor.dataset.bottom}`);
    const found = lines.flatMap(([name, points]) => points.filter((point) => point[0] === x).map((point) => [name, point]));
    output.textContent = `${found[0][1][2]}: ${found.map(([name, point]) => `${name} ${point[3]}`).join(", ")}`;
  };
  const nearest = (x) => places.reduce((best, place, index) => (Math.abs(place - x) < Math.abs(places[best] - x) ? index : best), 0);
  svg.addEventListener("pointermove", (event) => {
    if (!lines) read();
    const edge = svg.getBoundingClientRect();
    show(nearest(((event.clientX - edge.left) / edge.width) * width));
  });
  svg.addEventListener("keydown", (event) => {
    if (!["ArrowLeft", "ArrowRight", "Home", "End"].includes(event.key)) return;
    if (!lines) read();
    event.preventDefault();
    show({ ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: places.length - 1 }[event.key]);
  });
}

/* One slider for all runs: each shows its newest picture up to that step. */
const slider = document.querySelector(".slider input");
const strips = [...document.querySelectorAll(".strip")].map((strip) => [...strip.querySelectorAll("figure")]);
const showStep = (step) => {
  for (const figures of strips) {
    const newest = figures.filter((figure) => Number(figure.dataset.step) <= step).pop();
    for (const figure of figures) figure.classList.toggle("shown", figure === newest);
  }
};
if (slider) {
  const steps = JSON.parse(slider.dataset.steps), output = document.querySelector(".slider output");
  const move = () => {
    const step = steps[slider.value], text = step.toLocaleString("en");
    output.textContent = text;
    slider.setAttribute("aria-valuetext", `step ${text}`);
    showStep(step);
  };
  slider.addEventListener("input", move);
  move();
} else {
  showStep(Infinity);
}
