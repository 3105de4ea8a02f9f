"use strict";
document.documentElement.classList.add("scripted");

for (const figure of document.querySelectorAll(".chart")) {
  const svg = figure.querySelector("svg[role=img]"), cursor = svg.querySelector(".cursor");
  const output = figure.querySelector("output"), box = svg.viewBox.baseVal;
  const lines = [...svg.querySelectorAll(".line")].map((path) => ({ name: path.dataset.name, points: JSON.parse(path.dataset.points) }));
  const places = [...new Set(lines.flatMap((line) => line.points.map((point) => point[0])))].sort((a, b) => a - b);
  if (!places.length) continue;
  let at = places.length - 1;
  const show = (index) => {
    at = Math.max(0, Math.min(places.length - 1, index));
    const x = places[at];
    cursor.setAttribute("d", `M${x},${box.y}V${box.height - 34}`);
    const found = lines.flatMap((line) => line.points.filter((point) => point[0] === x).map((point) => [line.name, point]));
    output.textContent = `${found[0][1][2]}: ${found.map(([name, point]) => `${name} ${point[3]}`).join(", ")}`;
  };
  const nearest = (x) => places.reduce((best, place, index) => (Math.abs(place - x) < Math.abs(places[best] - x) ? index : best), 0);
  svg.addEventListener("pointermove", (event) => {
    const edge = svg.getBoundingClientRect();
    show(nearest(((event.clientX - edge.left) / edge.width) * box.width));
  });
  svg.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: places.length - 1 };
    if (event.key in moves) {
      event.preventDefault();
      show(moves[event.key]);
    }
  });
}

for (const frames of document.querySelectorAll(".frames")) {
  const slider = frames.querySelector("input"), output = frames.querySelector("output");
  const figures = [...frames.querySelectorAll("figure")];
  frames.classList.add("one");
  const show = () => {
    figures.forEach((figure, index) => figure.classList.toggle("shown", index === Number(slider.value)));
    const step = figures[slider.value].dataset.step;
    output.textContent = step;
    slider.setAttribute("aria-valuetext", `step ${step}`);
  };
  slider.addEventListener("input", show);
  show();
}
