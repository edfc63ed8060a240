// What WebGPU's compiler says of texts, in a page or under Node.

/** A line for each of `texts` (`{ name, code }`) that the device's compiler refuses. */
export async function refusals(device, texts) {
  const outcomes = await Promise.all(texts.map(async ({ name, code }) => {
    device.pushErrorScope('validation');
    const module = device.createShaderModule({ code });
    const [error, { messages }] = await Promise.all([device.popErrorScope(), module.getCompilationInfo()]);
    if (error === null) return undefined;
    const faults = messages.filter(({ type }) => type === 'error').map(({ lineNum, message }) => `line ${lineNum}: ${message}: ${code.split('\n')[lineNum - 1]}`);
    return `${name}: ${faults.join('; ') || error.message}`;
  }));
  return outcomes.filter((outcome) => outcome !== undefined);
}
