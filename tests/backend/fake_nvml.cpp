// A library with the names of NVML's functions that the tests load in its place: one device,
// "0000:01:00.0", that is capped at every other look.
namespace {
int looks = 0;
int device_object = 0;
}  // namespace

extern "C" {
int nvmlInit_v2() { return 0; }
int nvmlShutdown() { return 0; }
int nvmlDeviceGetHandleByPciBusId_v2(const char* bus_id, void** device) {
  *device = &device_object;
  return bus_id[5] == '0' && bus_id[6] == '1' ? 0 : 6;  // NVML_ERROR_NOT_FOUND
}
int nvmlSystemGetDriverVersion(char* version, unsigned length) {
  const char text[] = "580.65.06";
  for (unsigned i = 0; i < sizeof text && i < length; ++i) version[i] = text[i];
  return 0;
}
int nvmlDeviceGetClockInfo(void*, unsigned type, unsigned* mhz) {
  *mhz = type == 1 ? 1755 : 2619;
  return 0;
}
int nvmlDeviceGetTemperature(void*, unsigned, unsigned* celsius) {
  *celsius = 55;
  return 0;
}
int nvmlDeviceGetPowerUsage(void*, unsigned*) { return 3; }  // NVML_ERROR_NOT_SUPPORTED
int nvmlDeviceGetEnforcedPowerLimit(void*, unsigned* milliwatts) {
  *milliwatts = 700'000;
  return 0;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(void*, unsigned long long* reasons) {
  *reasons = ++looks % 2 == 1 ? 0x4 | 0x1 : 0x1;
  return 0;
}
}
