// A CUDA runtime without a GPU: device memory is host memory, work runs at once, and kernels refuse to run.
//
// Preloaded before libcudart, it lets a CUDA build of torch start, allocate, copy, and make streams, events and pinned
// memory. The operators run on the CPU, see ../simulated. The host is told that the device is as slow as can be: nothing
// is complete before the host waits for it. Therefore
//
// - a pinned buffer that is written while a copy from it may still run is reported (SIM_CUDA_RACES=warn or abort), and
// - a pinned buffer that a copy goes to contains garbage until the host has waited.
#define _GNU_SOURCE
#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OK return cudaSuccess
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static void lock(void) { pthread_mutex_lock(&mutex); }
static void unlock(void) { pthread_mutex_unlock(&mutex); }
static __thread int current_device = 0;

// ------------------------------------------------------------------------------------------------------------ memory

typedef struct {
    char *start;
    size_t size;
    int device;  // -1: pinned host memory
} Block;

#define MAX_BLOCKS 65536
static Block blocks[MAX_BLOCKS];
static int num_blocks = 0;

static cudaError_t allocate(void **p, size_t size, int device) {
    if (posix_memalign(p, 512, size ? size : 512)) return cudaErrorMemoryAllocation;
    if (getenv("SIM_CUDA_POISON")) memset(*p, 0xFF, size);  // as floating-point numbers: NaN
    lock();
    if (num_blocks == MAX_BLOCKS) {
        unlock();
        free(*p);
        return cudaErrorMemoryAllocation;
    }
    blocks[num_blocks++] = (Block){*p, size, device};
    unlock();
    OK;
}

static void wait_until(uint64_t number);
static uint64_t issued = 0, completed = 0;  // numbers of pieces of work, see below

static cudaError_t release(void *p) {
    if (!p) OK;
    wait_until(issued);  // as CUDA does
    lock();
    for (int i = 0; i < num_blocks; i++)
        if (blocks[i].start == p) {
            blocks[i] = blocks[--num_blocks];
            break;
        }
    unlock();
    free(p);
    OK;
}

static Block *find_block(const void *p) {
    for (int i = 0; i < num_blocks; i++)
        if ((char *)p >= blocks[i].start && (char *)p < blocks[i].start + blocks[i].size) return &blocks[i];
    return NULL;
}

static int is_pinned(const void *p) {
    Block *block = find_block(p);
    return block && block->device < 0;
}

cudaError_t cudaMalloc(void **p, size_t size) { return allocate(p, size, current_device); }
cudaError_t cudaFree(void *p) { return release(p); }
cudaError_t cudaHostAlloc(void **p, size_t size, unsigned flags) { return allocate(p, size, -1); }
cudaError_t cudaFreeHost(void *p) { return release(p); }
cudaError_t cudaHostRegister(void *p, size_t size, unsigned flags) { OK; }
cudaError_t cudaHostUnregister(void *p) { OK; }

#define TOTAL_MEMORY (8UL << 30)
cudaError_t cudaMemGetInfo(size_t *available, size_t *total) {
    *available = TOTAL_MEMORY / 2;
    *total = TOTAL_MEMORY;
    OK;
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *a, const void *p) {
    memset(a, 0, sizeof *a);
    a->type = cudaMemoryTypeUnregistered;
    lock();
    Block *block = find_block(p);
    if (block) {
        int on_host = block->device < 0;
        a->type = on_host ? cudaMemoryTypeHost : cudaMemoryTypeDevice;
        a->device = on_host ? 0 : block->device;
        a->devicePointer = (void *)p;
        a->hostPointer = on_host ? (void *)p : NULL;
    }
    unlock();
    OK;
}

// -------------------------------------------------------------------------------- asynchronous copies, and waiting

// All streams count as one: every piece of work has a number, and the host knows those up to `completed` to be done.
typedef struct {
    uint64_t number;
    char *host;  // the pinned buffer
    size_t size;
    uint64_t checksum;  // of a buffer that is read
    char *arriving;     // what a copy to the host brings; NULL for copies to the device
} Copy;

#define MAX_COPIES 4096
static Copy copies[MAX_COPIES];
static int num_copies = 0;
long sim_cuda_waits = 0, sim_cuda_races = 0;  // for the tests

static uint64_t checksum(const char *p, size_t size) {
    uint64_t hash = 1469598103934665603ULL;
    for (size_t i = 0; i < size; i++) hash = (hash ^ (unsigned char)p[i]) * 1099511628211ULL;
    return hash;
}

static void report_race(const Copy *copy) {
    const char *wanted = getenv("SIM_CUDA_RACES");
    sim_cuda_races++;
    if (!wanted) return;
    fprintf(stderr, "SIM_CUDA_RACES: %zu bytes of pinned memory changed before an asynchronous copy of them was over\n",
            copy->size);
    if (!strcmp(wanted, "abort")) abort();
}

static void wait_until(uint64_t number) {
    lock();
    if (number > completed) completed = number;
    int kept = 0;
    for (int i = 0; i < num_copies; i++) {
        Copy *copy = &copies[i];
        if (copy->number > completed) {
            copies[kept++] = *copy;
        } else if (copy->arriving) {
            memcpy(copy->host, copy->arriving, copy->size);
            free(copy->arriving);
        } else if (checksum(copy->host, copy->size) != copy->checksum) {
            report_race(copy);
        }
    }
    num_copies = kept;
    unlock();
}

static cudaError_t wait_for_all(void) {
    sim_cuda_waits++;
    wait_until(issued);
    OK;
}

static cudaError_t issue(void) {
    lock();
    issued++;
    unlock();
    OK;
}

static void add_copy(void *host, size_t size, char *arriving) {
    lock();
    copies[num_copies++] = (Copy){++issued, host, size, arriving ? 0 : checksum(host, size), arriving};
    unlock();
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, enum cudaMemcpyKind kind, cudaStream_t s) {
    lock();
    int to_pinned = is_pinned(to), from_pinned = is_pinned(from);
    unlock();
    if (num_copies > MAX_COPIES - 64) wait_until(issued);
    if (to_pinned && !from_pinned) {
        char *arriving = malloc(size);
        memcpy(arriving, from, size);
        memset(to, 0xAB, size);
        add_copy(to, size, arriving);
        OK;
    }
    memmove(to, from, size);
    if (from_pinned && !to_pinned) add_copy((void *)from, size, NULL);
    return issue();
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t size, enum cudaMemcpyKind kind) {
    wait_for_all();
    memmove(to, from, size);
    OK;
}
cudaError_t cudaMemcpyPeerAsync(void *to, int a, const void *from, int b, size_t size, cudaStream_t s) {
    memmove(to, from, size);
    return issue();
}
cudaError_t cudaMemsetAsync(void *p, int value, size_t size, cudaStream_t s) {
    memset(p, value, size);
    return issue();
}
cudaError_t cudaMemset(void *p, int value, size_t size) {
    memset(p, value, size);
    OK;
}

// Buffers that are still being copied when the process ends are checked as well.
__attribute__((destructor)) static void wait_at_exit(void) { wait_until(issued); }

// ------------------------------------------------------------------------------------------------ streams and events

static cudaError_t create_stream(cudaStream_t *s) {
    *s = malloc(64);
    OK;
}
cudaError_t cudaStreamCreate(cudaStream_t *s) { return create_stream(s); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags) { return create_stream(s); }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *s, unsigned flags, int priority) { return create_stream(s); }
cudaError_t cudaStreamDestroy(cudaStream_t s) {
    free(s);
    OK;
}
cudaError_t cudaStreamSynchronize(cudaStream_t s) { return wait_for_all(); }
cudaError_t cudaDeviceSynchronize(void) { return wait_for_all(); }
cudaError_t cudaStreamQuery(cudaStream_t s) { return issued > completed ? cudaErrorNotReady : cudaSuccess; }
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned flags) { OK; }
cudaError_t cudaStreamGetPriority(cudaStream_t s, int *priority) {
    *priority = 0;
    OK;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t s, enum cudaStreamCaptureStatus *status) {
    *status = cudaStreamCaptureStatusNone;
    OK;
}
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t s, enum cudaStreamCaptureStatus *status, unsigned long long *id,
                                     cudaGraph_t *g, const cudaGraphNode_t **d, const cudaGraphEdgeData **e, size_t *n) {
    *status = cudaStreamCaptureStatusNone;
    OK;
}
cudaError_t cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode *mode) { OK; }
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    *least = 0;
    *greatest = -1;
    OK;
}

// An event is the number of the work that was issued last when it was recorded.
static cudaError_t create_event(cudaEvent_t *e) {
    *e = calloc(8, 8);
    OK;
}
static cudaError_t record(cudaEvent_t e) {
    lock();
    *(uint64_t *)e = ++issued;
    unlock();
    OK;
}
cudaError_t cudaEventCreate(cudaEvent_t *e) { return create_event(e); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags) { return create_event(e); }
cudaError_t cudaEventDestroy(cudaEvent_t e) {
    free(e);
    OK;
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) { return record(e); }
cudaError_t cudaEventRecordWithFlags(cudaEvent_t e, cudaStream_t s, unsigned flags) { return record(e); }
cudaError_t cudaEventQuery(cudaEvent_t e) { return *(uint64_t *)e > completed ? cudaErrorNotReady : cudaSuccess; }
cudaError_t cudaEventSynchronize(cudaEvent_t e) {
    sim_cuda_waits++;
    wait_until(*(uint64_t *)e);
    OK;
}
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t a, cudaEvent_t b) {
    *milliseconds = 1;
    OK;
}

// -------------------------------------------------------------------------------------------------------- the device

static int device_count(void) {
    const char *given = getenv("SIM_CUDA_DEVICES"), *visible = getenv("CUDA_VISIBLE_DEVICES");
    int devices = given ? atoi(given) : 1, listed = 0;
    if (!visible) return devices;
    if (*visible && *visible != '-')
        for (listed = 1; *visible; visible++) listed += *visible == ',';
    return listed < devices ? listed : devices;
}
cudaError_t cudaGetDeviceCount(int *count) {
    *count = device_count();
    return *count ? cudaSuccess : cudaErrorNoDevice;
}
cudaError_t cudaGetDevice(int *device) {
    *device = current_device;
    OK;
}
cudaError_t cudaSetDevice(int device) {
    if (device < 0 || device >= device_count()) return cudaErrorInvalidDevice;
    current_device = device;
    OK;
}
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device) {
    memset(p, 0, sizeof *p);
    strcpy(p->name, "Simulated GPU");
    p->major = 9;
    p->totalGlobalMem = TOTAL_MEMORY;
    p->multiProcessorCount = 4;
    p->warpSize = 32;
    p->maxThreadsPerBlock = 1024;
    p->maxThreadsPerMultiProcessor = 2048;
    p->sharedMemPerBlock = 49152;
    p->regsPerBlock = 65536;
    p->maxGridSize[0] = p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    OK;
}
cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device) {
    *value = attribute == cudaDevAttrComputeCapabilityMajor ? 9 : attribute == cudaDevAttrWarpSize ? 32 : 0;
    OK;
}
cudaError_t cudaDeviceCanAccessPeer(int *value, int a, int b) {
    *value = 0;
    OK;
}
cudaError_t cudaDriverGetVersion(int *version) {
    *version = CUDART_VERSION;
    OK;
}
cudaError_t cudaRuntimeGetVersion(int *version) {
    *version = CUDART_VERSION;
    OK;
}
cudaError_t cudaDeviceGetPCIBusId(char *text, int size, int device) {
    snprintf(text, size, "0000:00:0%d.0", device);
    OK;
}

static __thread cudaError_t last_error = cudaSuccess;
cudaError_t cudaGetLastError(void) {
    cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}
cudaError_t cudaPeekAtLastError(void) { return last_error; }

// An operator has got past ../simulated. To do nothing in silence would be worse than an error.
static cudaError_t no_kernel(void) { return last_error = cudaErrorNoKernelImageForDevice; }
cudaError_t cudaLaunchKernel(const void *f, dim3 g, dim3 b, void **a, size_t m, cudaStream_t s) { return no_kernel(); }
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *c, const void *f, void **a) { return no_kernel(); }
cudaError_t __cudaLaunchKernel(const void *f, dim3 g, dim3 b, void **a, size_t m, cudaStream_t s) { return no_kernel(); }

// ---------------------------------------------------------------------------- the driver, as torch asks for it by name

int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
    *flags = 0;
    *active = 1;
    return 0;
}
static int not_supported(void) { return 801; }  // CUDA_ERROR_NOT_SUPPORTED
cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **f, unsigned version, unsigned long long flags,
                                             enum cudaDriverEntryPointQueryResult *result) {
    int known = !strcmp(name, "cuDevicePrimaryCtxGetState");
    *f = known ? (void *)cuDevicePrimaryCtxGetState : (void *)not_supported;
    if (result) *result = cudaDriverEntryPointSuccess;
    OK;
}
